"""The local web server: the page's files, and with `--compute` the model behind an HTTP interface."""
