"""The API over HTTP: requests, formats, the OpenAPI document, the console, `serve`."""
