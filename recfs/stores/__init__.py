"""Where bytes lie. `local` is the disk under the root; each store is an adapter and knows no other."""
