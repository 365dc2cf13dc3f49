"""Files, devices, processes and the hub: the machine that a run works on."""
