"""Small worlds of control experiments, and what is measured in them."""
