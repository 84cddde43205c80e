"""The run folder and how stages get done."""
