"""The whole road in one call, within the hours that it is given: what is measured, planned and done."""
