"""Cases from the field: data, and its models."""
