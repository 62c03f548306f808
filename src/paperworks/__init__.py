"""Research papers that work: methods to apply to your own model and data, and experiments that test their claims."""

__version__ = "0.1.0"
