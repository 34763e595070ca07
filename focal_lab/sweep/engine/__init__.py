"""How runs happen: queue, processes, what is told meanwhile. Nothing but `child` imports torch."""
