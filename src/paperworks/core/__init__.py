"""What every wing stands on: errors, seeds, devices, files, runs, statistics, progress, plots. Knows nothing of papers."""
