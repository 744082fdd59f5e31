// The API's reference.
