"""Looking at any nn.Module and leaving no trace: its parameters, layers, dead units, FLOPs and second derivatives."""
