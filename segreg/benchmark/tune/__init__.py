"""A search for the best recipe: Optuna proposes settings, each trial is a run, the validation split decides."""
