"""From predictions to numbers that can be trusted: scores, intervals, other libraries' conventions, diagrams."""
