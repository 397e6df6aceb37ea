"""What all pages and figures share: templates, styles, scripts, looks, tables, and how numbers are written."""
