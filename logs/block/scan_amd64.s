#include "textflag.h"

// EACH puts 16 times the byte c into X.
#define EACH(c, X) \
	MOVQ $(c*0x0101010101010101), AX; \
	MOVQ AX, X; \
	PUNPCKLQDQ X, X

// BITS looks at the 16 bytes of text at SI+at, and puts a bit for each into R8
// when it belongs to a word, and into R9 when it is a digit. A byte is in a range
// when it does not grow beyond the range's end, counted from its begin; bytes
// from 0x80 have the bit that counts themselves.
#define BITS(at) \
	MOVOU at(SI), X0; \
	MOVOA X0, X1; \
	PSUBB X10, X1; \
	MOVOA X1, X2; \
	PMINUB X11, X1; \
	PCMPEQB X2, X1; \
	PMOVMSKB X1, BX; \
	MOVOA X0, X2; \
	POR X12, X2; \
	PSUBB X13, X2; \
	MOVOA X2, X3; \
	PMINUB X14, X2; \
	PCMPEQB X3, X2; \
	POR X2, X1; \
	MOVOA X0, X4; \
	PCMPEQB X15, X4; \
	POR X4, X1; \
	POR X0, X1; \
	PMOVMSKB X1, CX; \
	SHLQ $at, BX; \
	SHLQ $at, CX; \
	ORQ BX, R9; \
	ORQ CX, R8

// func wordBits64(text *[64]byte) (in, digits uint64)
TEXT ·wordBits64(SB), NOSPLIT, $0-24
	MOVQ text+0(FP), SI
	EACH(0x30, X10) // '0'
	EACH(9, X11)
	EACH(0x20, X12) // makes letters lower-case
	EACH(0x61, X13) // 'a'
	EACH(25, X14)
	EACH(0x5f, X15) // '_'
	XORQ R8, R8
	XORQ R9, R9
	BITS(0)
	BITS(16)
	BITS(32)
	BITS(48)
	MOVQ R8, in+8(FP)
	MOVQ R9, digits+16(FP)
	RET
