"""How a `kedro run` starts, what it computes, what it prints, and what it records in MLflow."""
