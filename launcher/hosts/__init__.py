"""Facts about this machine: memory, processors, GPUs, engines, files, our processes."""
