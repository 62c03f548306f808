"""Making a model behave as if some rows had never been in its training data, and measuring whether it does."""
