"""The stage loop: read, decode, handle, record, hand over. And the process around it."""
