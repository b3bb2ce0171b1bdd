"""What the pipeline does now and did lately: streams, pending entries, rates, operations."""
