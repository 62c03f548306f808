"""Language models: policies, data, objectives, rewards, sampling, training and evaluation."""
