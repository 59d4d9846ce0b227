@0xe2bd921b47d28a7c;
# What a guest (G), a machine that has a token and nothing else, and the node that made it (H) say to each other: the wire form of
# engine/join/join_messages.h. engine/join/join_codec.cc alone includes what is generated from this file.
#
# The bytes of each root (Request, Reply) are one segment in Cap'n Proto's plain stream framing, at most 12 KiB long: one transport
# message without pages.
#
# What a reader refuses: more than one segment, bytes that are too few or too many; a struct with fewer fields than here; a name
# that is not of 1 to 63 letters, digits, '-', '_' and '.', or begins with '-' or '.'; an address that is not of 1 to 255 visible
# characters; more than 100 votes; an error that is none, or an unknown one, or of more than 1 KiB; a node 0 or that of guests;
# keys that are not 32 bytes long, none of them, or more than 16; 0 replicas; members that are not in ascending order of their
# ids, more than 64, or without the guest's own.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("mangrove::join_wire");

struct Request {            # G→H. Again on each connection, until there is a reply.
  number @0 :UInt64;        # Random, of this request.
  name @1 :Text;
  address @2 :Text;
  votes @3 :UInt32;
  group @4 :UInt64;         # Where it is to be. All ones: anywhere.
}

struct Reply {              # H→G.
  number @0 :UInt64;        # That of the request; 0: of one that H could not read.
  union {
    error :group {
      code @1 :UInt16;      # The canonical codes of gRPC and Abseil.
      message @2 :Text;
    }
    answer @3 :Answer;
  }
}

struct Answer {
  node @0 :UInt64;          # G is this one now.
  keys @1 :List(Data);      # The cluster's.
  replicas @2 :UInt32;      # The cluster's default.
  members @3 :List(Member); # The anchors, and G.
  leaseMs @4 :UInt32;       # Of all nodes; 0: the usual one, as versions say that know no other.
  systemReplicas @5 :UInt32; # Of all nodes; 0: as replicas.
}

struct Member {
  node @0 :UInt64;
  name @1 :Text;
  address @2 :Text;
  votes @3 :UInt32;
}
