// Package powercut takes the power away from a whole board and looks what the
// card holds afterwards. It holds tests only.
//
// A small x86 guest under qemu's software emulation (Debian's own cloud kernel,
// an initramfs of three static binaries) runs the real gatewayd beside the
// simulated plant; the buffer is on ext4 on a virtio disk. Its init tells over
// the serial line each record that gatewayd has reported as committed, with a
// checksum of its bytes. At a random instant qemu is ended by its pid, the
// guest boots again from the same disk, and before anything opens the buffer
// init tells all that is in it.
//
// The disk is served by the test itself over NBD, so a cut loses more than the
// guest's page cache: of what the guest wrote and did not flush, each sector of
// 512 bytes stays or goes at random, as with a card that has a cache of its own
// and obeys flushes. A card that lies about flushes, or that damages
// neighbouring sectors when its power goes, is not modelled.
package powercut
