"""Which objective works best on given data: the same budget and seeds for all, measured alike, one report."""
