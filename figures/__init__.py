"""The figures: each module reads tables of results, recorded or fresh, and draws; none runs an experiment."""
