//go:build !amd64

package block

// wordBits64 says which of 64 bytes belong to words and which are digits, a bit
// for each, the first byte's the lowest.
func wordBits64(text *[64]byte) (in, digits uint64) { return wordBits64Go(text) }
