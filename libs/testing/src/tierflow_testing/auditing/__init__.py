"""The parts of the auditor: reading what is stored, and one module for each kind of thing that must hold."""
