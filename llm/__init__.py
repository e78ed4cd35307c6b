"""Language models: tasks, data, models, and the problem that the federation fine-tunes."""
