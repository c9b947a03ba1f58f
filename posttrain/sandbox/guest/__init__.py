"""What runs inside a sandbox. These modules import nothing but the standard library and each other; `sandbox` hands
them over compiled, so no folder of the project is visible in there."""
