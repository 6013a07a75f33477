"""The step on devices: meshes, processes, accelerators."""
