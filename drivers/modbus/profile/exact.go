package profile

import (
	"math"
	"math/big"
	"math/bits"
)

// conv turns a raw number x into canonical units: (x*num + off) / den, rounded
// once. All three are whole numbers, den is positive.
type conv struct {
	num, off, den big.Int
	small         bool // all three fit in an int64
	n, o, d       int64
}

// newConv returns the conversion x -> x*mul + add.
func newConv(mul, add *big.Rat) conv {
	var c conv
	// common denominator: lcm of both
	var g, q big.Int
	g.GCD(nil, nil, mul.Denom(), add.Denom())
	q.Div(add.Denom(), &g)
	c.den.Mul(mul.Denom(), &q)
	c.num.Mul(mul.Num(), &q)
	q.Div(&c.den, add.Denom())
	c.off.Mul(add.Num(), &q)
	c.small = c.num.IsInt64() && c.off.IsInt64() && c.den.IsInt64()
	if c.small {
		c.n, c.o, c.d = c.num.Int64(), c.off.Int64(), c.den.Int64()
	}
	return c
}

// number is an exact decimal: (-1)^neg * mant * 10^exp.
type number struct {
	neg  bool
	mant uint64
	exp  int
}

func intNumber(i int64) number {
	if i < 0 {
		return number{neg: true, mant: -uint64(i)}
	}
	return number{mant: uint64(i)}
}

// apply returns (x*times*num + off)/den as the nearest float64; an infinity
// when it is beyond one.
func (c *conv) apply(x number, times int64) float64 {
	if f, ok := c.fast(x, times); ok {
		return f
	}
	r := x.rat()
	return c.applyRat(r.Mul(r, new(big.Rat).SetInt64(times)))
}

// applyRat is apply for any rational; x is used up.
func (c *conv) applyRat(x *big.Rat) float64 {
	x.Mul(x, new(big.Rat).SetInt(&c.num))
	x.Add(x, new(big.Rat).SetInt(&c.off))
	x.Quo(x, new(big.Rat).SetInt(&c.den))
	f, _ := x.Float64()
	return f
}

// rat returns x itself. The exponent is that of a float64 and a scale
// register, so the result stays under a few hundred digits.
func (x number) rat() *big.Rat {
	var m, ten big.Int
	m.SetUint64(x.mant)
	if x.neg {
		m.Neg(&m)
	}
	ten.Exp(big.NewInt(10), big.NewInt(int64(max(x.exp, -x.exp))), nil)
	r := new(big.Rat).SetInt(&m)
	if x.exp < 0 {
		return r.Quo(r, new(big.Rat).SetInt(&ten))
	}
	return r.Mul(r, new(big.Rat).SetInt(&ten))
}

const exactFloat = 1 << 53 // every whole number to here is a float64

// float returns the float64 near x, for comparing.
func (x number) float() float64 {
	f := float64(x.mant) * math.Pow10(x.exp)
	if x.neg {
		return -f
	}
	return f
}

// fast is apply in machine words: both terms of the last division are whole
// numbers that a float64 holds exactly, so the division rounds correctly.
func (c *conv) fast(x number, times int64) (float64, bool) {
	if !c.small || x.exp < -15 || x.exp > 15 {
		return 0, false
	}
	neg := x.neg
	n, ok := x.mant, true
	mul := func(by int64) {
		if by < 0 {
			neg = !neg
		}
		hi, lo := bits.Mul64(n, magnitude(by))
		if hi != 0 || lo > math.MaxInt64 {
			ok = false
		}
		n = lo
	}
	mul(times)
	mul(c.n)
	off, den := c.o, c.d
	if x.exp > 0 {
		mul(pow10(x.exp))
	} else if x.exp < 0 {
		p := pow10(-x.exp)
		if magnitude(off) > exactFloat/uint64(p) || den > exactFloat/p {
			return 0, false
		}
		off, den = off*p, den*p
	}
	if !ok || n > exactFloat || magnitude(off) > exactFloat || den > exactFloat {
		return 0, false
	}
	sum := int64(n)
	if neg {
		sum = -sum
	}
	sum += off
	if magnitude(sum) > exactFloat {
		return 0, false
	}
	return float64(sum) / float64(den), true
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

func pow10(e int) int64 {
	p := int64(1)
	for range e {
		p *= 10
	}
	return p
}
