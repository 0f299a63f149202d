"""What people see in a browser: pages made here, of what the gateway's own API answers to whoever looks."""
