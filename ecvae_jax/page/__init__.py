"""The page: a static folder that moves faces in a browser, without a server."""
