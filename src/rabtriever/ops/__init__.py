"""What keeps a pipeline running: tracking, the registry, the promotion gate, running DVC, and notifications.

Nothing here can change what a stage computes. It may import every room; only the command and the flows import it.
"""

from rabtriever.ops.environment import bypass_proxy

bypass_proxy()  # before a client of MLflow or Prefect is made
