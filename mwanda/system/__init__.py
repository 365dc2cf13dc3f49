"""Files, devices, processes, the hub: what the project asks of the machine."""
