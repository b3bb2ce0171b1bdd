"""Background work beside the requests: retention and completion webhooks."""
