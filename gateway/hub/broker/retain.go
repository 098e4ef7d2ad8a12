package broker

import (
	"bytes"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// retain stores retained messages in the library's place. The library writes a
// topic's retained path while a new subscription with a wildcard reads it
// (v2.7.9, TopicsIndex.RetainMessage and scanMessages): a data race that the
// race detector finds when boards announce themselves while the hub connects,
// and that could end the process. Here the two exclude each other.
type retain struct {
	mqtt.HookBase
	server *mqtt.Server
	// mu is held to store a message, and shared by a subscription from its
	// acceptance (OnSubscribed) to its end (OnPacketProcessed), between which
	// the library looks for what is retained. Nothing in between returns early.
	mu sync.RWMutex
}

// ID names the hook.
func (h *retain) ID() string { return "retain" }

// Provides lists the events the hook wants.
func (h *retain) Provides(event byte) bool {
	return bytes.Contains([]byte{mqtt.OnPublish, mqtt.OnWill, mqtt.OnSubscribed, mqtt.OnPacketProcessed}, []byte{event})
}

func (h *retain) store(pk packets.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server.Topics.RetainMessage(pk.Copy(false))
}

// OnPublish stores a retained message and passes it on as a plain one, which
// is how a subscriber that is there already gets it (MQTT 3.1.1, 3.3.1.3).
func (h *retain) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Retain {
		h.store(pk)
		pk.FixedHeader.Retain = false
	}
	return pk, nil
}

// OnWill does the same for a retained last will.
func (h *retain) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	if will.Retain && will.WillDelayInterval == 0 {
		h.store(packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: will.Qos, Retain: true},
			TopicName:   will.TopicName, Payload: will.Payload, Origin: cl.ID,
		})
		will.Retain = false
	}
	return will, nil
}

// OnSubscribed begins the library's look at what is retained.
func (h *retain) OnSubscribed(*mqtt.Client, packets.Packet, []byte) { h.mu.RLock() }

// OnPacketProcessed ends it.
func (h *retain) OnPacketProcessed(_ *mqtt.Client, pk packets.Packet, _ error) {
	if pk.FixedHeader.Type == packets.Subscribe {
		h.mu.RUnlock()
	}
}
