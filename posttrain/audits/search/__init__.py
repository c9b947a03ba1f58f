"""A search for answers that are wrong and paid."""
