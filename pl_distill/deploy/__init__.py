"""What a device needs: parameters, predicted memory, operations, limits of devices, exports and bundles."""
