"""What the machine offers: devices, memory, number formats; the only room that asks what kind a device is."""
