"""What surrounds the nodes of a `kedro run`: how it begins and ends, what it leaves out, what MLflow is told of it."""
