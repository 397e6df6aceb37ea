"""Sites: named places in the network, the table of their places in each architecture, and the views on them."""
