# The protocol between an attached program and the daemon of its host, over a Unix socket of type SOCK_SEQPACKET: one
# struct of this file is one packet of at most 16 KiB. docs/ATTACH.md tells who sends what when.
#
# Compatibility: Hello and Welcome may only grow, so that any two versions can refuse each other with a clear error.
# Everything else belongs to its version: a program and a daemon of different versions do not talk.

@0xd3b1c6a75e0f4a29;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("mangrove::attach_schema");

struct Hello {            # The program's first packet.
  magic @0 :UInt64;       # "Mangrove"
  version @1 :UInt32;
}

struct Welcome {          # The daemon's first packet.
  magic @0 :UInt64;
  version @1 :UInt32;
  status @2 :Status;      # Not OK: the daemon closes the connection after this packet.
  nodeName @3 :Text;
  # With a status of OK, descriptors: the deadline page (read-only), the events' socket.
}

struct Status {
  code @0 :UInt16;        # The canonical codes of gRPC and Abseil; 0 is OK.
  message @1 :Text;       # UTF-8, at most 2 KiB.
}

struct Pages {            # Of an open region: `count` pages from its page `first` on.
  region @0 :UInt64;
  first @1 :UInt64;
  count @2 :UInt64;
}

struct BytesOfPage {      # Of the page `page` of an open region.
  region @0 :UInt64;
  page @1 :UInt64;
  offset @2 :UInt16;
  length @3 :UInt16;
}

struct Request {
  id @0 :UInt64;          # Chosen by the program, not that of another outstanding request.
  timeoutMs @1 :UInt64;   # From the request's arrival; past it the daemon answers with an error.
  call :union {
    reserve :group {      # -> opened
      name @2 :Text;
      sizeBytes @3 :UInt64;
      hasOwner @4 :Bool;  # False: the caller's own.
      owner @5 :UInt32;
      hasGroup @6 :Bool;
      group @7 :UInt32;
      mode @8 :UInt16;
      withoutQuorum @55 :UInt8;  # 0: refuse, 1: read.
    }
    open :group {         # -> opened
      name @9 :Text;
      write @10 :Bool;
    }
    close @11 :UInt64;    # The region's number, which is then invalid. Its mapping is no longer served.
    map :group {          # With a userfaultfd of the program, on which it has registered its mapping of the region.
      region @12 :UInt64;
      base @13 :UInt64;   # Where the region's first byte is in the program.
      forCalls @54 :Bool; # The one that the library's calls copy by, which the program does not see. Each takes the place of one
                          # of its kind.
    }
    free @14 :Text;
    list @15 :Void;       # -> regions, in several replies
    space @16 :Void;      # -> space
    allocate :group {
      pages @17 :Pages;
      persistent @18 :Bool;
      replicas @19 :UInt32;
    }
    unallocate @20 :Pages;
    getAttributes :group {  # -> attributes
      region @21 :UInt64;
      page @22 :UInt64;
    }
    setAttributes :group {
      pages @23 :Pages;
      hasProtocol @24 :Bool;
      protocol @25 :UInt8;
      hasReplicas @26 :Bool;
      replicas @27 :UInt32;
      hasKeepInRam @28 :Bool;
      keepInRam @29 :Bool;
      hasUser @30 :Bool;
      user @31 :Data;     # 16 bytes.
    }
    checkAllocated @32 :Pages;
    acquire :group {      # Brings the pages to this node, with write access if asked for.
      pages @33 :Pages;
      write @34 :Bool;
    }
    lock :group {         # -> locked
      pages @35 :Pages;
      exclusive @36 :Bool;
    }
    unlock @37 :UInt64;   # The lock's number.
    flush @38 :Pages;
    heal @39 :Pages;      # The program has dropped its entries for these pages; the daemon forgets that they failed.
    counters @40 :UInt64; # The region's number. -> counters
    inspect :group {      # What the node says of itself. -> text, in several replies
      what @41 :Text;
      argument @42 :Text;
    }
    begin @43 :Void;      # A transaction, that ends by the timeout. -> begun
    readIn :group {       # -> text
      transaction @44 :UInt64;
      bytes @45 :BytesOfPage;
      write @46 :Bool;    # It is going to be written.
    }
    writeIn :group {
      transaction @47 :UInt64;
      bytes @48 :BytesOfPage;
      content @49 :Data;  # As many bytes as `bytes` says.
    }
    endTransaction :group {
      transaction @50 :UInt64;
      commit @51 :Bool;   # False: it is aborted.
    }
    readLog :group {      # What transactions of a node wrote to the region. -> text, in several replies
      region @52 :UInt64;
      node @53 :UInt64;
    }
  }
}

struct RegionInfo {
  name @0 :Text;
  addressHigh @1 :UInt64;
  addressLow @2 :UInt64;
  sizeBytes @3 :UInt64;
  allocatedBytes @4 :UInt64;
  owner @5 :UInt32;
  group @6 :UInt32;
  mode @7 :UInt16;
  withoutQuorum @8 :UInt8;  # 0: refuse, 1: read.
}

struct Reply {
  id @0 :UInt64;          # Of the request. Replies come in any order.
  status @1 :Status;
  more @2 :Bool;          # Another part of this reply follows.
  result :union {
    none @3 :Void;
    opened :group {       # With descriptors: the region's memory (read-write if mayWrite), its pages' states (read-only).
      region @4 :UInt64;
      info @5 :RegionInfo;
      mayWrite @6 :Bool;
      isOwner @7 :Bool;
    }
    regions @8 :List(RegionInfo);
    space :group {
      totalBytes @9 :UInt64;
      freeBytes @10 :UInt64;
      cacheBytes @11 :UInt64;
      cacheUsedBytes @12 :UInt64;
    }
    attributes :group {
      protocol @13 :UInt8;
      persistent @14 :Bool;
      replicas @15 :UInt32;
      keepInRam @16 :Bool;
      user @17 :Data;
    }
    locked @18 :UInt64;
    counters :group {
      readFaults @19 :UInt64;
      writeFaults @20 :UInt64;
      pagesFetched @21 :UInt64;
      reverts @22 :UInt64;
    }
    text @23 :Data;       # A part of a JSON document, of a log, or what was read.
    begun @24 :UInt64;    # The transaction's number.
  }
}

struct Event {            # On the events' socket, daemon to program.
  kind @0 :UInt8;         # 0 reverted, 1 maybe reverted, 2 lost
  pages @1 :Pages;
}
