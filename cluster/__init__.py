"""What more than one program needs: what Kubernetes' objects mean (here), how they are read (``api``), and what every
daemon has (``daemon``)."""
