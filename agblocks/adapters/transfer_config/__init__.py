"""The substring lists of alphagenome-pytorch's TransferConfig, as explicit adapters."""
