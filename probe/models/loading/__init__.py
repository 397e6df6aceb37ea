"""Loading: models found, checked and read from folders, the hub, GGUF files and packages."""
