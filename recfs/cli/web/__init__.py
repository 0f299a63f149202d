"""Commands of the gateway: `serve`."""
