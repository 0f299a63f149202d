"""Who is told of the kernel's requests: how (watched), and what they are to the audit log (acts)."""
