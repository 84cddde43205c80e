"""The whole study: data sets, training, controls, transferability, analyses."""
