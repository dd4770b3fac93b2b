"""The application: window, panels, key bindings, overlays, command line of `infnerf-view`."""
