"""What knows an embedding server: its protocol, the choice among several, its tokenizer."""
