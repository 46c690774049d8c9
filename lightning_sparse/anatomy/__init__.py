"""Look at any nn.Module and leave no trace: its parameters, layers, dead units, FLOPs and second derivatives."""
